// A borrowed view of an array that a Python caller handed in through DLPack: numpy, torch (CPU and CUDA), or anything
// else with __dlpack__. No copy is made; the view keeps the capsule, and with it the memory, alive. Needs the GIL.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "dlpack.hpp"
#include "dtype.hpp"

namespace poolwright {

class ArrayView {
public:
    // `name` is the argument's name in error messages. `writable` demands memory that may be written.
    ArrayView(const pybind11::object& array, const char* name, bool writable = false) : name_(name) {
        namespace py = pybind11;
        if (!py::hasattr(array, "__dlpack__") || !py::hasattr(array, "__dlpack_device__"))
            throw py::type_error(text() + " must be an array with __dlpack__ (numpy or torch), not " +
                                 std::string(py::str(py::type::of(array).attr("__name__"))));
        const auto device = array.attr("__dlpack_device__")().cast<py::tuple>();
        const bool cuda = device[0].cast<int>() == dlpack::kCuda;
        py::dict arguments;
        // -1: no synchronization by the producer; the caller passes the stream its data was made on.
        if (cuda) arguments["stream"] = -1;
        arguments["max_version"] = py::make_tuple(1, 0);
        try {
            capsule_ = array.attr("__dlpack__")(**arguments);
        } catch (py::error_already_set& error) {
            // Producers from before DLPack 1.0 know no max_version.
            if (!error.matches(PyExc_TypeError)) throw;
            arguments.attr("pop")("max_version");
            capsule_ = array.attr("__dlpack__")(**arguments);
        }
        open();
        if (writable && read_only_) throw py::value_error(text() + " is read-only, and the result is written to it");
    }

    const void* data() const { return data_; }
    template <class T>
    T* as() const {
        return static_cast<T*>(data_);
    }
    int64_t size(int axis) const { return shape_[axis]; }
    int64_t stride(int axis) const { return strides_[axis]; }  // in elements
    DType dtype() const { return dtype_; }
    bool on_cuda() const { return device_.device_type == dlpack::kCuda; }
    int device_id() const { return device_.device_id; }

    const ArrayView& expect_dims(int dims) const {
        if (static_cast<int>(shape_.size()) != dims)
            throw pybind11::value_error(text() + " must have " + std::to_string(dims) + " dimensions, not " +
                                        std::to_string(shape_.size()));
        return *this;
    }
    const ArrayView& expect_size(int axis, int64_t size) const {
        if (shape_[axis] != size)
            throw pybind11::value_error(text() + " must have size " + std::to_string(size) + " along axis " +
                                        std::to_string(axis) + ", not " + std::to_string(shape_[axis]));
        return *this;
    }
    const ArrayView& expect_dtype(DType dtype) const {
        if (dtype_ != dtype) throw pybind11::type_error(text() + " must be " + dtype_name(dtype) + ", not " + found_);
        return *this;
    }
    const ArrayView& expect_floating() const {
        if (dtype_ != DType::f32 && dtype_ != DType::f16 && dtype_ != DType::bf16)
            throw pybind11::type_error(text() + " must be float32, float16 or bfloat16, not " + found_);
        return *this;
    }
    const ArrayView& expect_contiguous() const {
        int64_t expected = 1;
        for (size_t axis = shape_.size(); axis-- > 0; expected *= shape_[axis])
            if (shape_[axis] > 1 && strides_[axis] != expected)
                throw pybind11::value_error(text() + " must be contiguous (C order)");
        return *this;
    }
    const ArrayView& expect_cpu() const {
        if (device_.device_type != dlpack::kCpu && device_.device_type != dlpack::kCudaHost)
            throw pybind11::value_error(text() + " must be in CPU memory, not on device type " +
                                        std::to_string(device_.device_type));
        return *this;
    }
    const ArrayView& expect_cuda() const {
        if (!on_cuda()) throw pybind11::value_error(text() + " must be in CUDA memory");
        return *this;
    }
    const ArrayView& expect_same_device(const ArrayView& other) const {
        if (device_.device_type != other.device_.device_type || device_.device_id != other.device_.device_id)
            throw pybind11::value_error(text() + " must be on the same device as " + other.name_);
        return *this;
    }

private:
    std::string text() const { return name_; }

    void open() {
        const char* label = PyCapsule_GetName(capsule_.ptr());
        const dlpack::Tensor* tensor = nullptr;
        if (label != nullptr && std::string(label) == "dltensor_versioned") {
            const auto* managed =
                static_cast<dlpack::ManagedTensorVersioned*>(PyCapsule_GetPointer(capsule_.ptr(), label));
            // The layout after `version` may differ in another major version: read nothing else.
            if (managed->version.major != 1)
                throw pybind11::value_error(text() + " speaks DLPack " + std::to_string(managed->version.major) +
                                            "; this build reads version 1");
            read_only_ = (managed->flags & dlpack::kReadOnly) != 0;
            tensor = &managed->tensor;
        } else if (label != nullptr && std::string(label) == "dltensor") {
            tensor = &static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(capsule_.ptr(), label))->tensor;
        } else {
            throw pybind11::type_error(text() + ".__dlpack__() returned no DLPack capsule");
        }
        device_ = tensor->device;
        data_ = tensor->data == nullptr ? nullptr : static_cast<char*>(tensor->data) + tensor->byte_offset;
        shape_.assign(tensor->shape, tensor->shape + tensor->ndim);
        strides_.resize(shape_.size());
        int64_t dense = 1;
        for (size_t axis = shape_.size(); axis-- > 0; dense *= shape_[axis])
            strides_[axis] = tensor->strides == nullptr ? dense : tensor->strides[axis];
        read_dtype(tensor->dtype);
    }

    void read_dtype(const dlpack::DataType& type) {
        const int code = type.code, bits = type.bits;
        static const char* const kinds[] = {"int", "uint", "float", "handle", "bfloat", "complex", "bool"};
        found_ = (code < 7 ? std::string(kinds[code]) : "type " + std::to_string(code) + " of bits ") +
                 (code == dlpack::kBool ? "" : std::to_string(bits));
        if (type.lanes != 1) dtype_ = DType::other;
        else if (code == dlpack::kFloat && bits == 32) dtype_ = DType::f32;
        else if (code == dlpack::kFloat && bits == 16) dtype_ = DType::f16;
        else if (code == dlpack::kBfloat && bits == 16) dtype_ = DType::bf16;
        else if (code == dlpack::kUInt && bits == 8) dtype_ = DType::u8;
        else if (code == dlpack::kInt && bits == 64) dtype_ = DType::i64;
        else if (code == dlpack::kFloat && bits == 64) dtype_ = DType::f64;
        else dtype_ = DType::other;
    }

    // The capsule is borrowed, not renamed: its own destructor releases the producer's memory when the view goes.
    pybind11::object capsule_;
    std::string name_;
    std::string found_;
    void* data_ = nullptr;
    dlpack::Device device_{};
    DType dtype_ = DType::other;
    bool read_only_ = false;
    std::vector<int64_t> shape_;
    std::vector<int64_t> strides_;
};

}  // namespace poolwright

// The DLPack exchange structures (https://dmlc.github.io/dlpack/latest/c_api.html), declared here so that the
// build needs no header besides pybind11's. Layout and names are the standard's; do not change them.
#pragma once

#include <cstdint>

namespace poolwright::dlpack {

enum DeviceType : int32_t { kCpu = 1, kCuda = 2, kCudaHost = 3, kCudaManaged = 13 };
enum TypeCode : uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4, kBool = 6 };

struct Device {
    int32_t device_type;
    int32_t device_id;
};

struct DataType {
    uint8_t code;
    uint8_t bits;
    uint16_t lanes;
};

struct Tensor {
    void* data;
    Device device;
    int32_t ndim;
    DataType dtype;
    int64_t* shape;
    int64_t* strides;  // in elements; null means C order
    uint64_t byte_offset;
};

// Capsule "dltensor": producers older than DLPack 1.0. They cannot say that memory is read-only.
struct ManagedTensor {
    Tensor tensor;
    void* manager_ctx;
    void (*deleter)(ManagedTensor*);
};

struct Version {
    uint32_t major;
    uint32_t minor;
};

constexpr uint64_t kReadOnly = 1;

// Capsule "dltensor_versioned": DLPack 1.0 and later.
struct ManagedTensorVersioned {
    Version version;
    void* manager_ctx;
    void (*deleter)(ManagedTensorVersioned*);
    uint64_t flags;
    Tensor tensor;
};

}  // namespace poolwright::dlpack

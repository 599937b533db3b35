"""Built-in plugins of Poolwright; they use the same public interface as anyone's."""

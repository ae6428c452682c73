"""Operations that a deployed graph can hold: functions of tensors that reach no memory or file beside them.

Names are those of ATen's packets; one with `_` at its end does the same in place.
"""

# fmt: off
ATEN = frozenset((
    "abs", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "add", "addbmm", "addcmul",
    "addmm", "all", "alpha_dropout", "amax", "amin", "any", "argmax", "argmin", "atan", "avg_pool1d",
    "avg_pool2d", "avg_pool3d", "baddbmm", "batch_norm", "bitwise_and", "bitwise_not", "bitwise_or",
    "bmm", "cat", "ceil", "celu", "channel_shuffle", "chunk", "clamp", "clamp_max", "clamp_min",
    "clone", "constant_pad_nd", "contiguous", "conv1d", "conv2d", "conv3d", "conv_transpose1d",
    "conv_transpose2d", "convolution", "cos", "cumsum", "detach", "div", "dropout", "einsum", "elu",
    "eq", "erf", "exp", "expand", "expand_as", "feature_dropout", "fill", "flatten", "flip", "floor",
    "floor_divide", "full_like", "gather", "ge", "gelu", "glu", "group_norm", "gt", "hardshrink",
    "hardsigmoid", "hardswish", "hardtanh", "index", "index_select", "instance_norm", "layer_norm",
    "le", "leaky_relu", "lift_fresh_copy", "linalg_vector_norm", "linear", "log", "log1p",
    "log_sigmoid", "log_softmax", "logical_and", "logical_not", "logical_or", "logsumexp", "lt",
    "masked_fill", "matmul", "max", "max_pool1d", "max_pool2d", "max_pool3d", "maximum", "mean", "min",
    "minimum", "mish", "mm", "movedim", "mul", "narrow", "native_batch_norm", "native_group_norm",
    "native_layer_norm", "ne", "neg", "new_ones", "new_zeros", "norm", "ones_like", "pad", "permute",
    "pixel_shuffle", "pixel_unshuffle", "pow", "prelu", "reciprocal", "reflection_pad2d", "relu",
    "relu6", "repeat", "replication_pad2d", "reshape", "rms_norm", "roll", "rsqrt", "rsub",
    "scaled_dot_product_attention", "select", "selu", "sigmoid", "sign", "silu", "sin", "slice",
    "softmax", "softplus", "softsign", "split", "split_with_sizes", "sqrt", "square", "squeeze",
    "stack", "std", "sub", "sum", "swapaxes", "sym_size", "t", "tanh", "threshold", "tile", "to",
    "transpose", "tril", "triu", "type_as", "unbind", "unflatten", "unsqueeze", "upsample_bicubic2d",
    "upsample_bilinear2d", "upsample_nearest2d", "var", "var_mean", "view", "where", "zero",
    "zeros_like", "_log_softmax", "_softmax", "_to_copy", "_unsafe_view",
))

DECOMPOSED = frozenset((
    "quantize_per_tensor", "dequantize_per_tensor", "quantize_per_channel", "dequantize_per_channel",
))
# fmt: on

"""What llama.cpp says that a file will take, before it quantizes: python dry_run.py FULL.gguf OURS.gguf

The types of OURS are asked for tensor by tensor, as `llama-quantize --dry-run --tensor-type-file` does, and
the size that its library announces is printed beside that of the tensors in OURS.
"""

import ctypes
import re
import sys

import llama_cpp
from gguf import GGUFReader


def main():
    full, ours = sys.argv[1:3]
    tensors = GGUFReader(ours).tensors
    matrices = [tensor for tensor in tensors if len(tensor.shape) == 2]
    said = []
    keep = llama_cpp.llama_log_callback(lambda level, text, data: said.append(text.decode()))
    llama_cpp.llama_log_set(keep, ctypes.c_void_p(0))
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.dry_run = settings.pure = True
    settings.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0
    overrides = (llama_cpp.llama_model_tensor_override * (len(matrices) + 1))()  # the last one has no pattern
    for override, tensor in zip(overrides, matrices):
        kind = int(tensor.tensor_type)
        override.pattern, override.type = f"^{re.escape(tensor.name)}$".encode(), kind
        if tensor.name == "token_embd.weight":
            settings.token_embedding_type = kind
        if tensor.name == "output.weight":
            settings.output_tensor_type = kind
    settings.tt_overrides = overrides
    code = llama_cpp.llama_model_quantize(full.encode(), b"not-written.gguf", ctypes.byref(settings))
    announced = re.search(r"quant size +=.*", "".join(said))
    assert code == 0 and announced, "".join(said)
    print(announced[0])
    print(f"tensors in {ours}: {sum(tensor.n_bytes for tensor in tensors) / 2**20:.2f} MiB")


main()

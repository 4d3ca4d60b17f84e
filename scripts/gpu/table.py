"""The table of native/cuda/kernels.h through ctypes, and device memory with canaries around it: on a GPU through torch, or on the
stand-in for CUDA through the runtime that its library is made of. Functions and structures are read from native's headers; knows no kernel."""

import ctypes
import re
from ctypes import POINTER, Structure, byref, c_char_p, c_float, c_int32, c_int64, c_void_p
from pathlib import Path

import numpy as np

P, I, L, F = c_void_p, c_int32, c_int64, c_float
TAKE = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_int64)


NATIVE = Path(__file__).parents[2] / "native"


class Scratch(Structure):
    _fields_ = [("take", TAKE), ("state", P)]


class GpuMatrix(Structure):
    _fields_ = [("header", ctypes.c_char * 64), ("body", P)]


TYPES = {"int32_t": I, "int64_t": L, "float": F, "bool": ctypes.c_bool, "GpuScratch": Scratch}


def _structure(name, header):
    """The ctypes structure of a C++ one, read from its header, so that a new member cannot shift those behind it."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", (NATIVE / header).read_text(), flags=re.DOTALL)
    body = re.search(rf"struct {name} {{(.*?)\n}};", text, re.DOTALL)[1]
    fields = []
    for line in re.sub(r"\([^;]*\) const {[^}]*}", "()", body).split("\n"):
        declared = re.match(r"\s*(?:const )?(\w+)\s*([^()]*);\s*$", line)
        if declared:
            for one in declared[2].split(","):
                fields.append((re.search(r"\w+", one)[0], P if "*" in one else TYPES[declared[1]]))
        elif line.strip() and "(" not in line:
            raise SystemExit(f"table.py cannot read the line {line.strip()!r} of {name} in native/{header}")
    return type(name, (Structure,), {"_fields_": fields})


Epilogue = _structure("Epilogue", "kernels/linear.h")
TYPES["AttentionRows"] = _structure("AttentionRows", "kernels/kernels.h")
Attention = _structure("Attention", "kernels/attention.h")
Sampling = _structure("GpuSampling", "cuda/kernels.h")
TYPES["DeltaSizes"] = _structure("DeltaSizes", "kernels/delta.h")
DeltaSequence = _structure("DeltaSequence", "kernels/delta.h")
Delta = _structure("Delta", "kernels/delta.h")
POINTERS = {"GpuMatrix": GpuMatrix, "Epilogue": Epilogue, "Attention": Attention, "GpuSampling": Sampling, "Delta": Delta, "int64_t": L}


def _type(parameter):
    """The ctypes type of a C parameter, such as `const float* x`. What a pointer points to counts for the host's structures only."""
    name = re.match(r"(?:const )?(\w+)", parameter)[1]
    if "*" not in parameter:
        return TYPES[name]
    return POINTER(POINTERS[name]) if name in POINTERS else P


def _read_entries():
    """(name, types of the parameters after the stream) of every device function, in the table's order."""
    text = (NATIVE / "cuda/kernels.def").read_text()
    for name, parameters in re.findall(r"^SV_KERNEL\((\w+), (.*)\)$", text, re.MULTILINE):
        yield name, [_type(parameter) for parameter in parameters.split(", ")]


ENTRIES = list(_read_entries())


class _Table(Structure):
    _fields_ = [("bytes", L), ("last_error", ctypes.CFUNCTYPE(c_char_p)), ("use_device", ctypes.CFUNCTYPE(None, I))] + [(n, ctypes.CFUNCTYPE(None, P, *a)) for n, a in ENTRIES]


class TorchMemory:
    def __init__(self):
        import torch

        self.torch = torch
        self.stream = torch.cuda.current_stream().cuda_stream
        self.kept = {}

    def allocate(self, n):
        tensor = self.torch.empty(n, dtype=self.torch.uint8, device="cuda")
        self.kept[tensor.data_ptr()] = tensor
        return tensor.data_ptr()

    def free(self, pointer):
        del self.kept[pointer]

    def write(self, pointer, data):
        self.kept[pointer].copy_(self.torch.from_numpy(data.copy()))

    def read(self, pointer, n):
        self.torch.cuda.synchronize()
        return self.kept[pointer].cpu().numpy()


class StandinMemory:
    stream = None

    def __init__(self, library):
        self.malloc = library["_Z17sv_standin_mallocPPvm"]
        self.copy = library["_Z10cudaMemcpyPvPKvm14cudaMemcpyKind"]
        self.free_ = library["_Z8cudaFreePv"]
        self.copy.argtypes, self.free_.argtypes = [P, P, ctypes.c_size_t, I], [P]

    def allocate(self, n):
        pointer = P()
        if self.malloc(byref(pointer), ctypes.c_size_t(n)):
            raise MemoryError("the stand-in's device memory is full")
        return pointer.value

    def free(self, pointer):
        self.free_(pointer)

    def write(self, pointer, data):
        self.copy(pointer, data.ctypes.data, data.nbytes, 1)

    def read(self, pointer, n):
        out = np.empty(n, np.uint8)
        self.copy(out.ctypes.data, pointer, n, 2)
        return out


class Buffer:
    """Device memory between two canaries; poisoned with 0xFF until something is written."""

    MARGIN = 256

    def __init__(self, memory, shape, dtype, values=None):
        self.memory, self.shape, self.dtype = memory, shape, np.dtype(dtype)
        self.bytes = int(np.prod(shape)) * self.dtype.itemsize
        image = np.full(self.bytes + 2 * self.MARGIN, 0xA5, np.uint8)
        image[self.MARGIN : self.MARGIN + self.bytes] = 0xFF if values is None else np.ascontiguousarray(values, dtype).reshape(-1).view(np.uint8)
        self.base = memory.allocate(max(len(image), 1))
        memory.write(self.base, image)
        self.pointer = self.base + self.MARGIN

    def get(self):
        image = self.memory.read(self.base, self.bytes + 2 * self.MARGIN)
        assert (image[: self.MARGIN] == 0xA5).all(), "memory before a buffer was written"
        assert (image[self.MARGIN + self.bytes :] == 0xA5).all(), "memory behind a buffer was written"
        return image[self.MARGIN : self.MARGIN + self.bytes].view(self.dtype).reshape(self.shape)


class Gpu:
    """The kernels of a library. Calls take Buffers, numbers and structures; all memory is freed by `release`."""

    def __init__(self, path, standin):
        library = ctypes.CDLL(path)
        library.sparsevila_gpu_kernels.restype = POINTER(_Table)
        self.table = library.sparsevila_gpu_kernels().contents
        if self.table.bytes != ctypes.sizeof(_Table):
            raise SystemExit(f"Expected a table of {ctypes.sizeof(_Table)} bytes, the library's has {self.table.bytes}: another version.")
        self.memory = StandinMemory(library) if standin else TorchMemory()
        self.buffers = []
        self._take = TAKE(self._taken)
        self.scratch = Scratch(self._take, None)

    def _taken(self, _, n):
        return self.empty(max(n, 1), np.uint8).pointer

    def put(self, values, dtype=np.float32):
        values = np.asarray(values, dtype)
        self.buffers.append(Buffer(self.memory, values.shape, dtype, values))
        return self.buffers[-1]

    def empty(self, shape, dtype=np.float32):
        shape = shape if isinstance(shape, tuple) else (shape,)
        self.buffers.append(Buffer(self.memory, shape, dtype))
        return self.buffers[-1]

    def call(self, name, *arguments):
        take = lambda a: a.pointer if isinstance(a, Buffer) else byref(a) if isinstance(a, Structure) and not isinstance(a, Scratch) else a
        getattr(self.table, name)(self.memory.stream, *[take(a) for a in arguments])

    def matrix(self, m):
        g = GpuMatrix()
        ctypes.memmove(byref(g), m.header, 64)
        g.body = self.put(m.body, np.uint8).pointer
        return g

    def error(self):
        text = self.table.last_error()
        return text.decode() if text else None

    def release(self):
        """Checks the canaries of everything, scratch too, and frees it."""
        for buffer in self.buffers:
            buffer.get()
            self.memory.free(buffer.base)
        self.buffers = []


def longs(values):
    return (L * max(1, len(values)))(*values)

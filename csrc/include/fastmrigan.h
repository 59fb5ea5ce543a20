/* FastMRIGAN's C library: a model file in, slices out, inside other software.
 *
 *   fmg_options options;
 *   fmg_options_init(&options);
 *   fmg_engine *engine;
 *   if (fmg_open("model.onnx", &options, &engine) != FMG_OK) { puts(fmg_last_error()); ... }
 *   if (fmg_run(engine, in, n, out) != FMG_OK) { ... }
 *   fmg_close(engine);
 *
 * Every function that can fail gives one of the codes below; fmg_last_error() then says in one
 * line what happened and what to do. No exception leaves the library, and it has no state that a
 * caller sees but the error text of each thread. On Linux; for research, not for diagnosis.
 *
 * Threads. Different engines may be used by different threads at once. One engine may be shared:
 * its calls queue, one after the other, and a call's deadline and cancellation hold while it
 * queues. fmg_close must be the last call on an engine. Engines share the cores: an engine a
 * thread gains most with `threads` set to the cores each may have.
 *
 * Memory. fmg_run and fmg_run_slices allocate nothing themselves where they succeed; what the
 * backend does inside is its own.
 */
#ifndef FASTMRIGAN_H
#define FASTMRIGAN_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define FMG_API __attribute__((visibility("default")))
#else
#define FMG_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What a call ends with. A number is never given another meaning. */
enum {
  FMG_OK = 0,
  FMG_ERROR_ARGUMENT = 1,        /* null, negative, a stride or size that does not fit */
  FMG_ERROR_OPTIONS = 2,         /* a backend, precision, threads or batch that cannot be */
  FMG_ERROR_FILE = 3,            /* the model file, or an engine's sidecar, cannot be read */
  FMG_ERROR_MODEL = 4,           /* the model file is damaged, altered, newer or not ours */
  FMG_ERROR_BACKEND_MISSING = 5, /* the backend was not built in, or its library (or driver) cannot
                                    be loaded */
  FMG_ERROR_BACKEND_VERSION = 6, /* it is there, but of a version that this library cannot use */
  FMG_ERROR_BACKEND = 7,         /* the backend refused the graph or failed to run it */
  FMG_ERROR_INPUT = 8,           /* the input holds NaN or infinite values */
  FMG_ERROR_OUTPUT = 9,          /* the model made NaN or infinite values */
  FMG_ERROR_DEADLINE = 10,       /* the call's deadline passed */
  FMG_ERROR_CANCELLED = 11,      /* the call's cancellation flag was set */
  FMG_ERROR_MEMORY = 12,         /* out of memory, or of threads */
  FMG_ERROR_BUG = 13             /* a bug of ours: please report the text */
};

/* An opened model, ready to run on one backend. */
typedef struct fmg_engine fmg_engine;

/* How an engine is set up. fmg_options_init gives every field its default. */
typedef struct fmg_options {
  size_t size; /* sizeof(fmg_options) of the header compiled against: its version */
  /* "openvino" (default), "onnxruntime" or "tensorrt"; the last two where the library was built
   * with their headers. "tensorrt" (compiled, not run) takes an .engine file of `fastmrigan export
   * --engine tensorrt` with its sidecar .engine.json beside it, in place of a model file. */
  const char* backend;
  const char* library; /* path of the backend's C library (libopenvino_c, libonnxruntime,
                          libnvinfer); NULL (default): by its plain name */
  /* "auto" (default), "fp32" or, of OpenVINO, "bf16", which auto takes only where the processor has
   * it and the model file records at least 45 dB for it. A file that was exported in bf16, fp16 or
   * int8, and an engine, run in that alone: "auto" or its name. */
  const char* precision;
  int32_t threads; /* threads of a call; 0 (default): as many as this process may use */
  int32_t batch;   /* slices that the backend takes at once, 1 (default) to 4096 */
} fmg_options;

/* What an opened engine is. The texts live until the engine is closed. */
typedef struct fmg_info {
  size_t size;                 /* sizeof(fmg_info), set by the caller */
  int32_t task;                /* FMG_SAMPLE or FMG_TRANSLATE */
  int32_t height, width;       /* of a slice, in pixels */
  int32_t latent_size;         /* of an FMG_SAMPLE model's input; 0 otherwise */
  int32_t batch, threads;      /* as they run */
  const char* backend;         /* its name, as in fmg_options */
  const char* backend_version; /* as the backend itself gives it */
  const char* device;          /* the name of the processor, or of the GPU */
  const char* precision;       /* "fp32", "bf16", "fp16" or "int8" */
  const char* why_precision;   /* where it was left to the engine; else "" */
  const char* recipe;
  const char* source_contrast; /* "" where the model file names none */
  const char* target_contrast;
  const char* graph_sha256;
} fmg_info;

enum { FMG_SAMPLE = 1, FMG_TRANSLATE = 2 };

/* The type of a pixel in memory, in the machine's byte order. */
enum { FMG_FLOAT32 = 1, FMG_INT16 = 2, FMG_UINT16 = 3 };

/* How pixels stand to the model's scale of -1 to 1. */
enum {
  FMG_SCALE_MODEL = 1, /* they are on it: FMG_FLOAT32 only; low and high are not looked at */
  FMG_SCALE_RANGE = 2 /* low goes to -1, high to 1: clipped on the way in; on the way out an integer
                         is rounded half to even and clamped to its type */
};

/* Where slices lie: pixel (z, y, x) is at data + z * slice_stride + y * row_stride +
 * x * pixel_stride. Strides are in bytes, whole multiples of the pixel's size, and may be negative;
 * all three 0 means dense, [n, height, width] in C order. Of an FMG_SAMPLE model's input, height is
 * 1 and width latent_size. */
typedef struct fmg_slices {
  size_t size; /* sizeof(fmg_slices) */
  void* data;  /* aligned to the pixel's size; an input is only read */
  int32_t type;
  int32_t scale;
  double low, high; /* in the pixels' own unit, low < high */
  int64_t slice_stride, row_stride, pixel_stride;
} fmg_slices;

/* How one call may end early. */
typedef struct fmg_call {
  size_t size;         /* sizeof(fmg_call) */
  int64_t deadline_us; /* from the start of the call, in microseconds; 0: none */
  /* NULL, or a flag that another thread or a signal handler sets to anything but 0. Read
   * atomically; write it so too (C11 atomic_int, std::atomic<int>, volatile sig_atomic_t in a
   * handler). */
  const volatile int* cancel;
} fmg_call;

/* The library's version, such as "0.1.0". */
FMG_API const char* fmg_version(void);

/* What went wrong last in this thread, in one line; "" where nothing has. Valid until the thread's
 * next call into the library. */
FMG_API const char* fmg_last_error(void);

/* The name of a code, such as "FMG_ERROR_MODEL"; "unknown code" for any other number. */
FMG_API const char* fmg_code_name(int code);

FMG_API void fmg_options_init(fmg_options* options);

/* Reads, checks and compiles a model file. options NULL: the defaults. *engine is NULL after a
 * failure. Gives FMG_ERROR_ARGUMENT, _OPTIONS, _FILE, _MODEL, _BACKEND_MISSING, _BACKEND_VERSION,
 * _BACKEND, _MEMORY. */
FMG_API int fmg_open(const char* path, const fmg_options* options, fmg_engine** engine);

/* The same from memory, which is not looked at after the call. Not for "tensorrt". */
FMG_API int fmg_open_memory(const void* data, size_t size, const fmg_options* options,
                            fmg_engine** engine);

/* Frees an engine. NULL is allowed. */
FMG_API void fmg_close(fmg_engine* engine);

/* Fills the fields that info->size covers. */
FMG_API int fmg_get_info(const fmg_engine* engine, fmg_info* info);

/* n slices through the model, all dense float32 on the scale of -1 to 1.
 * in: FMG_TRANSLATE [n, height, width], FMG_SAMPLE [n, latent_size] (standard normal).
 * out: [n, height, width]; after a failure its content is undefined. It may not overlap `in`.
 * Gives FMG_ERROR_ARGUMENT, _INPUT, _OUTPUT, _BACKEND. */
FMG_API int fmg_run(fmg_engine* engine, const float* in, int64_t n, float* out);

/* The same from and to memory of any layout, graded on the way. call NULL: no deadline, no
 * cancellation. FMG_OK says that all slices were there by the deadline. A call past its deadline,
 * or cancelled, comes back once the backend has finished the layer at hand (TensorRT: the batch).
 * Gives FMG_ERROR_DEADLINE and _CANCELLED too. */
FMG_API int fmg_run_slices(fmg_engine* engine, const fmg_slices* in, int64_t n,
                           const fmg_slices* out, const fmg_call* call);

/* The range that the model file's own grading rule finds in n slices together: a volume's, or one
 * slice's, for low and high of FMG_SCALE_RANGE. in->scale, in->low and in->high are not looked at.
 * Allocates. Gives FMG_ERROR_ARGUMENT, FMG_ERROR_INPUT where the values are constant, not finite
 * or outside the model's window, FMG_ERROR_MODEL where the file states no known rule. */
FMG_API int fmg_measure(const fmg_engine* engine, const fmg_slices* in, int64_t n, double* low,
                        double* high);

#ifdef __cplusplus
}
#endif

#endif

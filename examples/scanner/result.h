/* The result stream of both programs: a header a frame, then its pixels where it has any.
 *
 * The frame stream they read is bare: int16 [height, width] of the model's slices, one frame after
 * the other, in the machine's byte order. */
#ifndef RESULT_H
#define RESULT_H

#include <stdint.h>

struct result_header {
  uint32_t frame;        /* counted from 0 */
  int32_t code;          /* FMG_OK, or why the frame has no pixels */
  uint32_t microseconds; /* that translating it took */
  uint32_t pixels;       /* int16 values that follow: height * width, or 0 */
};

/* What both programs end with. */
enum { DONE = 0, USAGE = 2, SOME_FRAMES_FAILED = 3, DISK_FULL = 4, MODEL_REFUSED = 5 };

#endif

/* What a stand-in for a backend is told to do. */
#ifndef FAKE_BACKEND_H
#define FAKE_BACKEND_H

typedef struct fake_controls {
  int sleep_ms;      /* that a run takes, in steps of 1 ms at which it can be cancelled */
  int fail_run;      /* a run ends with an error */
  int make_nan;      /* a run's output holds NaN */
  int refuse_graph;  /* no graph is read */
  int height, width; /* of every graph's slices */
} fake_controls;

typedef fake_controls* fake_control_function(void);

#endif

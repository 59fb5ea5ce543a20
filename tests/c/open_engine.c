/* Opens one file and prints what came of it: the code's name, and the text where it is an error.
 *
 *   open_engine BACKEND LIBRARY BATCH PATH */
#include <fastmrigan.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  fmg_options options;
  fmg_options_init(&options);
  options.backend = argv[1];
  options.library = argv[2];
  options.batch = atoi(argv[3]);
  fmg_engine* engine = NULL;
  const int code = fmg_open(argv[4], &options, &engine);
  printf("%s: %s\n", fmg_code_name(code), fmg_last_error());
  fmg_close(engine);
  return 0;
}

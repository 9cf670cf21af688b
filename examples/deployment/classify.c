/* Rows of numbers in, classes out: a classifier that GeSdA has trained, in C.
 *
 *     cc classify.c $(pkg-config --cflags --libs gesda) -o classify
 *     ./classify model.gesda < rows.csv
 */
#include <gesda/gesda.h>
#include <stdio.h>
#include <stdlib.h>

/* Reads a row of n numbers, separated by commas or blanks; 0 at the end of the input. */
static int read_row(float *row, int n) {
  for (int i = 0; i < n; ++i)
    if (scanf(" %f%*[,;]", &row[i]) != 1) return 0;
  return 1;
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: %s MODEL < ROWS\n", argv[0]);
    return 2;
  }
  gesda_model *model;
  gesda_info info;
  gesda_info_init(&info);
  if (gesda_open(argv[1], NULL, &model) != GESDA_OK || gesda_describe(model, &info) != GESDA_OK) {
    fprintf(stderr, "%s: %s\n", argv[1], gesda_last_error());
    return 1;
  }
  float *row = malloc((size_t)info.n_features * sizeof *row);
  float *probabilities = malloc((size_t)info.n_outputs * sizeof *probabilities);
  if (row == NULL || probabilities == NULL) {
    fprintf(stderr, "There is no memory for a row.\n");
    return 1;
  }
  int status = 0;
  while (status == 0 && read_row(row, info.n_features)) {
    int32_t best;
    if (gesda_classify(model, row, 1, &best) != GESDA_OK ||
        gesda_probabilities(model, row, 1, probabilities) != GESDA_OK) {
      fprintf(stderr, "%s\n", gesda_last_error());
      status = 1;
    } else {
      printf("%s %.4f\n", gesda_class_name(model, best), (double)probabilities[best]);
    }
  }
  free(probabilities);
  free(row);
  gesda_close(model);
  return status;
}

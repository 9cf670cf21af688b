/* What c_source.py puts together: the sections that a model needs, with `model` replaced by the model's name. */

/* ---- top ---- */
/* @model@; made by GeSdA @version@. To change it, export it again.
 *
 * Weights: @weights@.
 * Constants (flash): @constants@.
 * Working memory (RAM): struct model_work, @work@ bytes; besides, the caller's input and output.
 *
 * Compile: cc -std=c99 -O2 -c @file@; link with -lm, for expf and tanhf. It is C++ as well.
 * Other files get the declarations by
 *
 *   #define MODEL_DECLARATIONS
 *   #include "@file@"
 *
 * A call takes one row. It writes to output and work only, which the caller brings: calls with different work may run
 * at the same time. Work needs no initial value and keeps nothing. It is not on the stack, because tasks have small
 * ones and overflow them unseen, while the linker counts a static object; who has the room may make it a local
 * variable. Numbers have to be finite; input, output and work must not overlap.
 */
#ifndef MODEL_INPUTS
@widths@

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct model_work {
  @fields@
};

@prototypes@

#ifdef __cplusplus
}
#endif
#endif /* MODEL_INPUTS */

#ifndef MODEL_DECLARATIONS
#include <math.h>
#include <stddef.h>

/* ---- class_names ---- */
const char *const model_class_names[MODEL_CLASSES] = {
@strings@
};

/* ---- round: int8 ---- */
/* Rounds values to whole numbers, the largest magnitude to the limit; returns what a step of one stands for.
 * The limit keeps a sum of n products with weights of 127 at most within 32 bits. */
static float model_round(const float *values, size_t n, int16_t *rounded) {
  const int32_t bound = INT32_MAX / 127 / (int32_t)n;
  const float limit = bound < INT16_MAX ? (float)bound : (float)INT16_MAX;
  float largest = 0.0f;
  float invalid = 0.0f; /* becomes NaN with a value that is not finite: no such value is converted */
  for (size_t i = 0; i < n; ++i) {
    const float magnitude = values[i] < 0.0f ? -values[i] : values[i];
    largest = magnitude > largest ? magnitude : largest;
    invalid += values[i] - values[i];
  }
  const float scale = largest > 1e-30f && invalid >= 0.0f ? limit / largest : 0.0f;
  for (size_t i = 0; i < n; ++i) {
    const float value = scale > 0.0f ? values[i] * scale : 0.0f;
    rounded[i] = (int16_t)(value < 0.0f ? value - 0.5f : value + 0.5f);
  }
  return largest / limit + invalid;
}

/* ---- dense: int8 ---- */
/* output = input by weights + bias; a row of weights is an output's. */
static void model_dense(const int8_t *weights, const float *scales, const float *bias, size_t n_inputs,
                        size_t n_outputs, const float *input, float *output, int16_t *rounded) {
  const float step = model_round(input, n_inputs, rounded);
  for (size_t j = 0; j < n_outputs; ++j) {
    const int8_t *const row = weights + j * n_inputs;
    int32_t sum = 0;
    for (size_t i = 0; i < n_inputs; ++i) {
      sum += (int32_t)row[i] * rounded[i];
    }
    output[j] = (float)sum * step * scales[j] + bias[j];
  }
}

/* ---- dense_back: int8 ---- */
/* The way back through an encoder's weights, a row of which is an input's; multiplies the input by the rows' scales. */
static void model_dense_back(const int8_t *weights, const float *scales, const float *bias, size_t n_inputs,
                             size_t n_outputs, float *input, float *output, int16_t *rounded) {
  for (size_t j = 0; j < n_inputs; ++j) {
    input[j] *= scales[j];
  }
  const float step = model_round(input, n_inputs, rounded);
  for (size_t first = 0; first < n_outputs; first += 32) { /* so many sums at a time, each row's part in one piece */
    const size_t n = n_outputs - first < 32 ? n_outputs - first : 32;
    int32_t sums[32] = {0};
    for (size_t j = 0; j < n_inputs; ++j) {
      const int8_t *const row = weights + j * n_outputs + first;
      for (size_t i = 0; i < n; ++i) {
        sums[i] += (int32_t)row[i] * rounded[j];
      }
    }
    for (size_t i = 0; i < n; ++i) {
      output[first + i] = (float)sums[i] * step + bias[first + i];
    }
  }
}

/* ---- dense: fp32 ---- */
/* output = input by weights + bias; a row of weights is an output's. */
static void model_dense(const float *weights, const float *bias, size_t n_inputs, size_t n_outputs,
                        const float *input, float *output) {
  for (size_t j = 0; j < n_outputs; ++j) {
    const float *const row = weights + j * n_inputs;
    float sum = 0.0f;
    for (size_t i = 0; i < n_inputs; ++i) {
      sum += row[i] * input[i];
    }
    output[j] = sum + bias[j];
  }
}

/* ---- dense_back: fp32 ---- */
/* The way back through an encoder's weights, a row of which is an input's. */
static void model_dense_back(const float *weights, const float *bias, size_t n_inputs, size_t n_outputs,
                             const float *input, float *output) {
  for (size_t i = 0; i < n_outputs; ++i) {
    output[i] = bias[i];
  }
  for (size_t j = 0; j < n_inputs; ++j) {
    const float *const row = weights + j * n_outputs;
    for (size_t i = 0; i < n_outputs; ++i) {
      output[i] += row[i] * input[j];
    }
  }
}

/* ---- sigmoid ---- */
static void model_sigmoid(float *values, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    const float e = expf(values[i] < 0.0f ? values[i] : -values[i]); /* never overflows */
    values[i] = (values[i] < 0.0f ? e : 1.0f) / (1.0f + e);
  }
}

/* ---- tanh ---- */
static void model_tanh(float *values, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    values[i] = tanhf(values[i]);
  }
}

/* ---- relu ---- */
static void model_relu(float *values, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    values[i] = values[i] < 0.0f ? 0.0f : values[i];
  }
}

/* ---- softmax ---- */
static void model_softmax(float *values, size_t n) {
  float largest = values[0];
  float sum = 0.0f;
  for (size_t i = 1; i < n; ++i) {
    largest = values[i] > largest ? values[i] : largest;
  }
  for (size_t i = 0; i < n; ++i) {
    values[i] = expf(values[i] - largest); /* at most 1, and 1 for one of them */
    sum += values[i];
  }
  for (size_t i = 0; i < n; ++i) {
    values[i] /= sum;
  }
}

/* ---- encode ---- */
/* The encoding of a row: what transform gives. */
void model_encode(const float input[MODEL_INPUTS], float output[MODEL_ENCODINGS], struct model_work *work) {
  @steps@
}

/* ---- logits ---- */
/* What the probabilities are the softmax of. */
void model_logits(const float input[MODEL_INPUTS], float output[MODEL_CLASSES], struct model_work *work) {
  @steps@
}

/* ---- probabilities ---- */
/* The probabilities of the classes: what predict_proba gives. */
void model_probabilities(const float input[MODEL_INPUTS], float output[MODEL_CLASSES], struct model_work *work) {
  model_logits(input, output, work);
  model_softmax(output, MODEL_CLASSES);
}

/* ---- classify ---- */
/* The number of the most probable class, whose name model_class_names has. */
int model_classify(const float input[MODEL_INPUTS], struct model_work *work) {
  float *const logits = @result@;
  int best = 0;
  model_logits(input, logits, work);
  for (int k = 1; k < MODEL_CLASSES; ++k) {
    best = logits[k] > logits[best] ? k : best;
  }
  return best;
}

/* ---- predict ---- */
/* The targets in their own units: what predict gives. */
void model_predict(const float input[MODEL_INPUTS], float output[MODEL_TARGETS], struct model_work *work) {
  @steps@
}

/* ---- reconstruct ---- */
/* The row denoised: what reconstruct gives. */
void model_reconstruct(const float input[MODEL_INPUTS], float output[MODEL_INPUTS], struct model_work *work) {
  @steps@
}

/* ---- score ---- */
/* How normal a row is: what score_samples gives, minus the mean squared error of its reconstruction. */
float model_score(const float input[MODEL_INPUTS], struct model_work *work) {
  float *const output = @result@;
  float sum = 0.0f;
  model_reconstruct(input, output, work);
  for (size_t i = 0; i < MODEL_INPUTS; ++i) {
    const float difference = output[i] - input[i];
    sum += difference * difference;
  }
  return -sum / (float)MODEL_INPUTS;
}

/* ---- end ---- */
#endif /* MODEL_DECLARATIONS */

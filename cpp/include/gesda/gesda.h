/* GeSdA's runtime: trained models without Python.
 *
 *     gesda_model *model;
 *     if (gesda_open("digits.gesda", NULL, &model) != GESDA_OK) { puts(gesda_last_error()); return 1; }
 *     gesda_classify(model, pixels, 1, &number);          // pixels: 64 floats; number: 0, 1, ...
 *     printf("%s\n", gesda_class_name(model, number));
 *     gesda_close(model);
 *
 * A model belongs to one thread at a time, and so do its streams; open it once for each thread that works at the same
 * time. Nothing is allocated after gesda_open and gesda_stream_open have returned, nothing exits or throws. Functions
 * return a gesda_status; gesda_last_error then tells what went wrong, in a sentence. After an error other than
 * GESDA_OK, outputs hold nothing of use, and the model is as before.
 *
 * Matrices are row-major, of float32, without gaps. Inputs must be finite. Structures begin with their size, so that
 * programs go on working with later versions: the gesda_*_init functions set it and all defaults.
 */
#ifndef GESDA_GESDA_H
#define GESDA_GESDA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define GESDA_API __attribute__((visibility("default")))
#else
#define GESDA_API
#endif

typedef enum gesda_status {
  GESDA_OK = 0,
  GESDA_INVALID_ARGUMENT = 1, /* a null pointer, a number out of range, an input that is not finite */
  GESDA_FILE_ERROR = 2,       /* the file cannot be opened or read */
  GESDA_BAD_FILE = 3,         /* the file is damaged or no model */
  GESDA_UNSUPPORTED = 4,      /* a model of this kind does not do that */
  GESDA_OUT_OF_MEMORY = 5,
  GESDA_NO_DEVICE = 6, /* the device asked for is not there */
  GESDA_INTERNAL_ERROR = 7
} gesda_status;

/* "0.1.0" */
GESDA_API const char* gesda_version(void);
/* What the last call of this thread that failed has to say; "" if none has. Valid until the next failure. */
GESDA_API const char* gesda_last_error(void);

/* ---- models ---------------------------------------------------------------------------------------------------- */

typedef struct gesda_model gesda_model;

typedef enum gesda_kind {
  GESDA_AUTOENCODER = 0, /* StackedDenoisingAutoencoder: encode, reconstruct, score */
  GESDA_CLASSIFIER = 1,  /* SdAClassifier: these and probabilities, classify */
  GESDA_REGRESSOR = 2,   /* SdARegressor: these and predict */
  GESDA_RECOGNIZER = 3   /* DeepMotion's GestureRecognizer: recognize, streams */
} gesda_kind;

typedef enum gesda_weights { GESDA_FLOAT32 = 0, GESDA_FLOAT16 = 1, GESDA_INT8 = 2 } gesda_weights;

typedef struct gesda_options {
  size_t size;
  /* Whether to compare the file with its checksum first, which takes a millisecond or two a megabyte. Sizes, types,
   * shapes and values are checked in any case. Default 0. */
  int verify;
  /* SIMD variant: "avx512", "avx2", "neon", "baseline"; NULL, the default, for the fastest that runs here. */
  const char* variant;
} gesda_options;

GESDA_API void gesda_options_init(gesda_options* options);

/* Opens a model file that GeSdA has saved or exported. options may be NULL. */
GESDA_API gesda_status gesda_open(const char* path, const gesda_options* options, gesda_model** model);
/* The same from memory, which is not needed afterwards. */
GESDA_API gesda_status gesda_open_memory(const void* data, size_t size, const gesda_options* options,
                                         gesda_model** model);
/* Closes a model whose streams are closed; NULL is no error. */
GESDA_API void gesda_close(gesda_model* model);

typedef struct gesda_info {
  size_t size;
  gesda_kind kind;
  gesda_weights weights;
  int32_t n_features;    /* columns of an input; of a recogniser: channels of a sample */
  int32_t n_layers;      /* of the stack */
  int32_t n_hidden;      /* columns of an encoding */
  int32_t n_outputs;     /* classes, gestures, or numbers predicted; 0 for an autoencoder */
  uint64_t weight_bytes; /* of weights, biases and scales in memory */
  double rate;           /* recogniser: samples a second of its examples, 0 if it does not know */
  double threshold;      /* recogniser: familiarity below it is unknown */
  char variant[16];      /* SIMD variant in use */
} gesda_info;

GESDA_API void gesda_info_init(gesda_info* info);
GESDA_API gesda_status gesda_describe(const gesda_model* model, gesda_info* info);
/* Names of classes or gestures as UTF-8, numbers as text, valid until the model is closed; NULL out of range. */
GESDA_API const char* gesda_class_name(const gesda_model* model, int32_t number);
/* Names of features; NULL if the model was trained without, or out of range. */
GESDA_API const char* gesda_feature_name(const gesda_model* model, int32_t number);

/* rows: (n, n_features). Codes: (n, n_hidden). */
GESDA_API gesda_status gesda_encode(gesda_model* model, const float* rows, size_t n, float* codes);
/* reconstructions: (n, n_features). */
GESDA_API gesda_status gesda_reconstruct(gesda_model* model, const float* rows, size_t n, float* reconstructions);
/* scores: (n,), minus the mean squared error of the reconstruction: the lower, the stranger. */
GESDA_API gesda_status gesda_score(gesda_model* model, const float* rows, size_t n, float* scores);
/* probabilities: (n, n_outputs). */
GESDA_API gesda_status gesda_probabilities(gesda_model* model, const float* rows, size_t n, float* probabilities);
/* classes: (n,), numbers of the most probable classes. */
GESDA_API gesda_status gesda_classify(gesda_model* model, const float* rows, size_t n, int32_t* classes);
/* values: (n, n_outputs), in the units of the training targets. */
GESDA_API gesda_status gesda_predict(gesda_model* model, const float* rows, size_t n, float* values);

/* ---- gestures -------------------------------------------------------------------------------------------------- */

typedef struct gesda_recognition {
  int32_t gesture;   /* -1: like no known gesture */
  int32_t best;      /* the most probable one, rejected or not; -1 if none is known */
  float confidence;  /* probability of `best` among the known gestures */
  float familiarity; /* how much the motion is like known ones; 0 is an average example */
} gesda_recognition;

/* samples: (n_samples, n_features), one motion from its first sample to its last. probabilities: (n_outputs,), or
 * NULL. */
GESDA_API gesda_status gesda_recognize(gesda_model* model, const float* samples, size_t n_samples,
                                       gesda_recognition* recognition, float* probabilities);

/* Gestures in samples as they come: gesda.deepmotion.GestureStream, whose documentation explains each option. */
typedef struct gesda_stream gesda_stream;

typedef struct gesda_stream_options {
  size_t size;
  double rate;      /* Hz of samples without time stamps; 0, the default: that of the recogniser's examples */
  double pause;     /* seconds of rest that end a gesture; default 0.25 */
  double max_gap;   /* seconds; longer holes end a gesture; 0, the default: 0.25 s, or five samples if that is more */
  const float* low; /* (n_features,) values outside of [low, high] are taken as missing; NULL, the default: spikes */
  const float* high;
  int unknown;    /* whether motions that are no known gesture are events too; default 0 */
  int continuous; /* whether gestures are looked for inside of motions that are none as a whole; default 1 */
  int candidates; /* lengths of gestures tried at each place of such a motion; default 4 */
} gesda_stream_options;

typedef struct gesda_event {
  int32_t gesture; /* -1: unknown */
  float confidence;
  float familiarity;
  double start,
      end; /* seconds of the first and last sample, on the clock of the time stamps or from the first sample */
} gesda_event;

typedef struct gesda_report {
  size_t size;
  uint64_t received, used, missing, late, duplicated, not_finite, out_of_range, gaps, events, rejected;
  double rate;             /* Hz, over about the last 64 samples */
  int32_t n_lost_channels; /* channels that give nothing now */
  int in_motion;
} gesda_report;

GESDA_API void gesda_stream_options_init(gesda_stream_options* options);
GESDA_API gesda_status gesda_stream_open(gesda_model* model, const gesda_stream_options* options,
                                         gesda_stream** stream);
GESDA_API void gesda_stream_close(gesda_stream* stream);
/* Takes samples (n, n_features), NaN where a value is missing, with time stamps in seconds (n,) or NULL. taken: how
 * many were; fewer than n only while events wait for gesda_stream_next. */
GESDA_API gesda_status gesda_stream_push(gesda_stream* stream, const float* samples, const double* times, size_t n,
                                         size_t* taken);
/* Ends the gesture that is going on, without waiting for a pause. */
GESDA_API gesda_status gesda_stream_flush(gesda_stream* stream);
/* The next event, in the order of their ends: 1, or 0 if none waits. */
GESDA_API int gesda_stream_next(gesda_stream* stream, gesda_event* event);
GESDA_API void gesda_report_init(gesda_report* report);
GESDA_API gesda_status gesda_stream_report(const gesda_stream* stream, gesda_report* report);
/* Forgets all samples, events and counts. */
GESDA_API gesda_status gesda_stream_reset(gesda_stream* stream);

#ifdef __cplusplus
}
#endif

#endif

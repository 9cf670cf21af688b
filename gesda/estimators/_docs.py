"""The documentation of constructor parameters that the estimators share: each text lives here once."""

from __future__ import annotations

import inspect
from typing import TypeVar

_T = TypeVar("_T", bound=type)

_STACK = """
    hidden_layer_sizes : int or sequence of int, default=(256, 128)
        Hidden units of each layer.
    activation : {"sigmoid", "tanh", "relu", "linear"} or sequence, default="sigmoid"
        Encoder's activation. This and every parameter marked *or sequence* takes one value for each layer.
    noise : {"none", "masking", "gaussian", "salt_and_pepper", "swap"} or sequence, default="masking"
        How a layer's input is corrupted while it pretrains. Salt and pepper are the least and the greatest
        value of the data, or the bounds of the activation below.
    noise_level : float or sequence, default=0.25
        Probability that a component is corrupted; for gaussian noise its standard deviation.
    emphasis : (float, float), sequence of such pairs, or None, default=None
        Weights of the reconstruction loss on corrupted and on uncorrupted components [1]_; None is (1, 1).
    reconstruction_loss : {"auto", "cross_entropy", "squared_error"} or sequence, default="auto"
        Summed over the components. "auto" takes cross-entropy (with a sigmoid decoder) for a layer whose
        input lies in [0, 1], which means the data or the encoding of a sigmoid layer; otherwise squared error,
        with a decoder that has the range of its input: tanh over a tanh layer, linear over other layers
        and data.
    tied_weights : bool or sequence, default=True
        Whether the decoder uses the transposed weights of the encoder.
    sparsity, sparsity_target : float or sequence, default=0.0 and 0.05
        Weight of the Kullback-Leibler divergence of the hidden units' mean activations from the target;
        for sigmoid layers.
    contractive : float or sequence, default=0.0
        Weight of the squared Frobenius norm of the encoder's Jacobian.
    schedule : {"crosspre", "sequential"}, default="crosspre"
        All layers pretrain at once, each on the current encodings of the layers under it, or one after
        the other.
    stagger : int or "auto", default=1
        With CrossPre, by how many epochs a layer starts after the one under it; "auto" starts a layer when
        the one under it has settled.
    handoff : {"clean", "noisy"}, default="clean"
        Which encoding a training layer hands to the next one: that of its clean or of its corrupted input.
    pretrain_epochs : int or sequence, default=15
        Epochs of pretraining of each layer; 0 for none.
    pretrain_learning_rate : float, "auto" or sequence, default="auto"
        Learning rate of pretraining. "auto" is 0.1 with "sgd" for a layer with cross-entropy, less where it
        would overshoot with squared error (the more, the wider the layer and the larger the data), and
        0.001 with "adam".
    pretrain_solver : {"sgd", "adam"}, default="sgd"
        Optimiser of pretraining.
    pretrain_momentum : float, default=0.9
        Momentum in [0, 1) of pretraining with "sgd".
    pretrain_alpha : float or sequence, default=0.0
        Weight of the L2 penalty on the weight matrices in pretraining."""

_FINETUNE = """
    max_iter : int, default=100
        Most epochs of fine-tuning.
    learning_rate_init : float or "auto", default="auto"
        Learning rate of fine-tuning. "auto" is 0.1 with "sgd" for classes, less where it would overshoot
        (numeric targets, unbounded activations), and 0.001 with "adam".
    solver : {"sgd", "adam"}, default="sgd"
        Optimiser of fine-tuning.
    momentum : float, default=0.9
        Momentum in [0, 1) of fine-tuning with "sgd".
    alpha : float, default=0.0
        Weight of the L2 penalty on all weight matrices in fine-tuning.
    dropout : float or sequence, default=0.0
        Probability in [0, 1) that a hidden unit is dropped while fine-tuning.
    input_dropout : float, default=0.0
        The same for the input.
    early_stopping : bool, default=False
        Whether to set a part of the labelled samples aside, stop when the score on it no longer improves,
        and go back to the weights of the best epoch. Without it, fine-tuning stops when the training loss
        no longer improves.
    validation_fraction : float, default=0.1
        Share of the labelled samples set aside. They join pretraining, without their labels.
    n_iter_no_change : int, default=10
        Stop after more than this many epochs in a row without an improvement of at least `tol`.
    tol : float, default=1e-4
        See `n_iter_no_change`."""

_TRAINING = """
    learning_rate : {"constant", "inverse", "exponential", "cosine"}, default="constant"
        Course of the learning rates, in each layer's pretraining{and_finetuning}; see
        `gesda.schedule.rate_at`.
    learning_rate_decay : float, default=0.0
        Decay of the inverse and of the exponential course.
    nesterovs_momentum : bool, default=True
        Whether momentum is Nesterov's.
    beta_1, beta_2, epsilon : float, default=0.9, 0.999 and 1e-8
        Decay rates of the moments and the stabiliser of "adam".
    batch_size : int or "auto", default="auto"
        Rows of a minibatch. "auto" is 128, and less (4 at least) where that left fewer than 25 minibatches
        of training samples; always 128 in `partial_fit`.
    warm_start : bool, default=False
        Whether fit continues from the current weights instead of new ones.
    probe_size : int, default=256
        Samples on which the drift of the encodings is measured after each epoch of pretraining; 0 for no
        measurement.
    device : {"auto", "cpu", "cuda", "reference"}, default="auto"
        What computes: the processor, the first GPU ("cuda:1" is the second one), or slow and plain NumPy in float64.
        "auto" takes the GPU if there is one that ``gesda warmup`` has checked.
    precision : {"fp32", "bf16", "tf32", "fp16"}, default="fp32"
        Of the operands of matrix products; weights and sums are float32. bf16 is the cpu's, tf32 and fp16 are the
        GPU's, in whose place the cpu computes in fp32.
    memory_limit : int or None, default=None
        Bytes of GPU memory that may be used; None means all that is free. Data that do not fit stream from the host.
    tune : bool, default=False
        Whether to measure on the GPU, once for each network and minibatch, which kernels are the fastest.
    n_jobs : int or None, default=None
        Threads; None and -1 mean all that this process may use. The results do not depend on it.
    random_state : int, RandomState instance or None, default=None
        Determines the initial weights, the shuffles, the noise and the validation samples.
    verbose : int, default=0
        Whether to show progress: a bar on a terminal, lines in a log.
    callbacks : list of gesda.callbacks.Callback or None, default=None
        Told of every epoch; they may stop the training."""

_FITTED = """
    coefs_, intercepts_ : list of ndarray of float32
        Weight matrices (n_inputs, n_outputs) and biases of the layers{and_head}.
    history_ : list of dict
        One record for each layer and epoch of pretraining{and_epoch}: loss, seconds, learning rate, and
        the drift of the encodings on the probe samples{and_score}.
    device_ : str
        What computed.
    n_features_in_ : int
        Features seen in fit.
    feature_names_in_ : ndarray of str, shape (n_features_in_,)
        Their names, if X had any that are all strings."""

_REFERENCES = """
    .. [1] P. Vincent, H. Larochelle, I. Lajoie, Y. Bengio and P.-A. Manzagol, "Stacked Denoising
       Autoencoders", Journal of Machine Learning Research 11, 2010."""


def document(cls: _T) -> _T:
    """Fill in the shared texts of an estimator's docstring: the places named ``%(stack)s`` and so on."""
    supervised = "%(finetune)s" in (cls.__doc__ or "")
    words = {
        "{and_finetuning}": " and in fine-tuning" if supervised else "",
        "{and_head}": ", then of the head" if supervised else "",
        "{and_epoch}": " and for each epoch of fine-tuning" if supervised else "",
        "{and_score}": " or the validation score" if supervised else "",
    }
    texts = {"stack": _STACK, "finetune": _FINETUNE, "training": _TRAINING, "fitted": _FITTED, "refs": _REFERENCES}
    document = inspect.cleandoc(cls.__doc__ or "")  # as the compiler does from Python 3.13 on
    for name, text in texts.items():
        for word, value in words.items():
            text = text.replace(word, value)
        document = document.replace(f"%({name})s", inspect.cleandoc(text))
    cls.__doc__ = document
    return cls

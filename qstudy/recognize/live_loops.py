"""A packed LSTM recognizer that listens: samples in, labels out, in one compiled call.

Each window of samples becomes a frame of features (an FFT in float64, as in `data.features`; the last bits may differ,
but features are rounded to 1 / PER_UNIT), is normalized (as `model.normalize` does, to the bit), and waits until an
encoder frame is full; then the LSTM layers and the projection run (`quant.packed.loops`), and the search
(`greedy_loops`). Needs nothing of the processor that those do not need. The twin of the features is
`data.features.Filterbank`, that of the whole `Recognizer.transcribe`; tests hold them against each other. As in
`loops`, arguments are addresses and plans.
"""

import math

import numpy as np

from qstudy.data.features import PER_UNIT
from qstudy.jit import compiled
from qstudy.quant.kernels import cell, gemv
from qstudy.quant.packed import loops
from qstudy.quant.packed.loops import affine, doubles, floats, lstm_layers, numbers
from qstudy.recognize import greedy_loops
from qstudy.recognize.greedy_loops import greedy_frames

(WINDOW, HOP, BINS, POINTS, STACK, REDUCTION, PRIOR, HIDDEN, JOINED) = range(9)
"""Of a plan, sizes: samples of a window, and between two; mel bins; points of the complex FFT, half of the real one's;
frames in an LSTM frame, LSTM frames in an encoder frame; 1: there is a running mean; H; size of the joiner."""
(HANN, FILTERS, WAVES, ORDER, MEAN, DEVIATION, LSTM, PROJECTION, SEARCH) = range(9, 18)
"""Addresses of constants: window (float64), filters (POINTS + 1, bins) float64, cosines and sines of the FFT
(2, POINTS) float64 of the real FFT's angles, the order of its inputs (int64), mean and deviation (float32); plans."""
(CLOCK, PENDING, CHUNK, TOTAL, STATES, OUTPUTS, PROJECTED, PREDICTED, PREDICTOR) = range(18, 27)
"""Addresses of what a stream carries: samples and feature frames that wait (int64), the samples (WINDOW,) and the
frames; the running sum of each bin, and the number of frames in it (float64); LSTM states; outputs; the projected
frame; the projected predictor vector and the predictor's state. float32 where nothing is said."""
PARTS = 27
EPSILON = float(np.finfo(np.float32).eps)
USES = (cell, gemv, loops, greedy_loops)


@compiled()
def transform(real, imaginary, order, cosines, sines):
    """The Fourier transform of (N,) float64, in place; N a power of two; waves: of the angles k pi / N."""
    count = real.size
    for k in range(count):
        other = order[k]
        if k < other:
            real[k], real[other] = real[other], real[k]
            imaginary[k], imaginary[other] = imaginary[other], imaginary[k]
    half = 1
    while half < count:
        step = count // half
        for begin in range(0, count, 2 * half):
            for k in range(half):
                low, high, cosine, sine = begin + k, begin + k + half, cosines[k * step], sines[k * step]
                x = real[high] * cosine + imaginary[high] * sine
                y = imaginary[high] * cosine - real[high] * sine
                real[high], imaginary[high] = real[low] - x, imaginary[low] - y
                real[low], imaginary[low] = real[low] + x, imaginary[low] + y
        half *= 2


@compiled()
def powers(real, imaginary, cosines, sines, power):
    """From the transform (N,) of the even and odd samples of a signal to its power spectrum (N + 1,)."""
    count = real.size
    for k in range(count + 1):
        low, high = k % count, (count - k) % count
        x, y = 0.5 * (real[low] + real[high]), 0.5 * (imaginary[low] - imaginary[high])
        u, v = 0.5 * (imaginary[low] + imaginary[high]), 0.5 * (real[high] - real[low])
        cosine, sine = (cosines[k], sines[k]) if k < count else (-1.0, 0.0)
        a, b = x + u * cosine + v * sine, y + v * cosine - u * sine
        power[k] = a * a + b * b


@compiled(uses=USES)
def log_mel(own, preemphasis, frame):
    """The features (bins,) float32 of the window that waits; own: the plan's parts."""
    points, bins, size = own[POINTS], own[BINS], own[WINDOW]
    samples, hann = floats(own[PENDING], size), doubles(own[HANN], size)
    waves, order = doubles(own[WAVES], 2 * points), numbers(own[ORDER], points)
    cosines, sines = waves[:points], waves[points:]
    wave, power, energies = np.zeros(2 * points), np.empty(points + 1), np.zeros(bins)
    for j in range(1, size):
        wave[j] = (np.float64(samples[j]) - preemphasis * np.float64(samples[j - 1])) * hann[j]
    real, imaginary = wave[0::2].copy(), wave[1::2].copy()
    transform(real, imaginary, order, cosines, sines)
    powers(real, imaginary, cosines, sines, power)
    filters = doubles(own[FILTERS], (points + 1) * bins)
    for k in range(points + 1):
        row, each = filters[k * bins : (k + 1) * bins], power[k]
        for j in range(bins):
            energies[j] += each * row[j]
    for j in range(bins):
        frame[j] = np.rint(math.log(max(energies[j], EPSILON)) * PER_UNIT) / PER_UNIT


@compiled(uses=USES)
def normalize(own, frame):
    """A frame (bins,) becomes what the encoder hears; own: the plan's parts."""
    bins = own[BINS]
    mean, deviation, total = floats(own[MEAN], bins), floats(own[DEVIATION], bins), doubles(own[TOTAL], bins + 1)
    for j in range(bins):
        frame[j] = (frame[j] - mean[j]) / deviation[j]
    if own[PRIOR]:
        total[bins] += 1.0
        count = np.float32(total[bins])
        for j in range(bins):
            total[j] += np.float64(frame[j])
        for j in range(bins):
            frame[j] = frame[j] - np.float32(total[j]) / count


@compiled(uses=USES)
def encode(plan, x, frames):
    """LSTM layers over frames of stacked features, and the projection of each encoder frame.

    Args:
        plan: of the stream; its states are moved on, and the projected frames written to where it says.
        x: address of (frames, stack * bins) float32.
        frames: how many, a multiple of the reduction.
    """
    own = numbers(plan, PARTS)
    lstm_layers(own[LSTM], x, own[STATES], own[STATES], own[OUTPUTS], 1, frames, 0)
    affine(own[PROJECTION], own[OUTPUTS], own[PROJECTED], frames // own[REDUCTION], 0)


@compiled(uses=USES)
def hear(plan, preemphasis, samples, count, labels):
    """Take samples, and search through the encoder frames that they complete.

    Args:
        plan: of the stream.
        preemphasis: of the features, float64.
        samples: address of (count,) float32.
        count: how many.
        labels: address of room for the labels, int64.

    Returns:
        How many labels there are; -1 if a sample is no number: then nothing was heard.
    """
    own, given, found, taken = numbers(plan, PARTS), floats(samples, count), 0, 0
    for j in range(count):
        if not math.isfinite(given[j]):
            return -1
    clock, pending = numbers(own[CLOCK], 2), floats(own[PENDING], own[WINDOW])
    size, full = own[BINS], own[STACK] * own[REDUCTION]
    chunk = floats(own[CHUNK], full * size)
    predicted, state = floats(own[PREDICTED], own[JOINED]), floats(own[PREDICTOR], numbers(own[SEARCH], 4)[3] * 2)
    while taken < count:
        new = min(own[WINDOW] - clock[0], count - taken)
        pending[clock[0] : clock[0] + new] = given[taken : taken + new]
        clock[0] += new
        taken += new
        if clock[0] == own[WINDOW]:
            frame = chunk[clock[1] * size : (clock[1] + 1) * size]
            log_mel(own, preemphasis, frame)
            normalize(own, frame)
            clock[0] -= own[HOP]
            for j in range(clock[0]):
                pending[j] = pending[j + own[HOP]]
            clock[1] += 1
        if clock[1] == full:
            clock[1] = 0
            encode(plan, own[CHUNK], own[REDUCTION])
            room = numbers(labels + 8 * found, numbers(own[SEARCH], greedy_loops.PARTS)[greedy_loops.MOST])
            found += greedy_frames(own[SEARCH], own[PROJECTED], 1, predicted, state.reshape(2, -1), room)
    return found

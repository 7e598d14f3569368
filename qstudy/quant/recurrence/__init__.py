"""The LSTM recurrence, forward and backward, compiled for the CPU or in torch."""

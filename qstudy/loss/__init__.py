"""The RNN-T loss: `rnnt` chooses, `kernels` are compiled loops for the CPU, `portable` is torch on any device."""

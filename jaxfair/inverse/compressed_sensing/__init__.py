r"""Signals from fewer linear measurements than they have numbers, by what is known of such signals.

A signal x of N numbers is seen through M of them, :math:`y = A x + e`. What is lacking comes from

- a generator G of such signals, whose latent is searched: `latent_search`, `projected_search`;
- a generator that knows the measurement, :math:`G(z, y)`: the same search, trained by `negative_evidence`;
- the mean and the covariance of such signals: `lmmse`, one matrix;
- a basis in which they have few numbers: `lasso` with `dct_basis` or `haar_basis`.

`consistent` moves any answer to the nearest one that explains the measurement.
"""

"""Estimators: they read rewards, endings and values from a batch of time series and write advantages and targets."""

"""Judging samples: metrics, feature spaces, and the reference they are held against."""

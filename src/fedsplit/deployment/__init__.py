"""Trained client models as they run on devices: quantized, saved, loaded, run and measured."""

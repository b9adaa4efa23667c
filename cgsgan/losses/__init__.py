"""Objectives and regularisers: pure functions of logits, images and scenes."""

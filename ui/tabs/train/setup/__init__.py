"""What a visitor chooses before a training: pictures, lesson, settings, race."""

"""What forms are made of: fields with their labels and help, folded parts, sliders."""

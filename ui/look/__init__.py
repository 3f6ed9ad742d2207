"""How the page looks: its theme, its font and its style sheet."""

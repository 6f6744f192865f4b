"""An episode log in the forms that other tools read."""

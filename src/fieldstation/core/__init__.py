"""What every capability leans on; knows no domain word."""

"""Cards of runs and conditioners, and their way to the Hugging Face hub and back; recordings never travel."""

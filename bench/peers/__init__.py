"""Other servers under the same load: what a user would pick instead. Each speaks its own protocol to the same crowd."""

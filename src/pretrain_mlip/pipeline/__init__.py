"""The whole method, step by step, in a folder that can be left and taken up again at any point."""

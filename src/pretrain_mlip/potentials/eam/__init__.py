"""The embedded-atom potential: the teacher of the networks, and a potential in its own right."""

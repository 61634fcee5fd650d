"""One training loop; what differs between strategies is data and starting weights."""

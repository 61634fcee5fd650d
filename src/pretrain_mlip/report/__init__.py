"""What a person reads after a run: results.json turned into figures and one self-contained HTML file."""

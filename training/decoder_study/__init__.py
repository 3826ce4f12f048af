"""What a fidelity decoder changes, in numbers, sentences and pictures, written as a page; may import study and what that may,
and metrics.
"""

"""The paper's ablations and the small study, from runs to the page; may import every room but folder and commands."""

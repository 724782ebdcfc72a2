"""Meta-World's tasks, one module each: what a task looks at (`Scene`), shows (`observe`) and rewards (`evaluate`)."""

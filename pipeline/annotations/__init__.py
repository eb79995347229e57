"""What people say of responses: tasks, desks, outliers removed, agreement."""

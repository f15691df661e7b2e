"""Attribution feedback: credit with a window and an interval."""

"""What runs inside a member's walls: data, training, budget, and one door to the outside."""

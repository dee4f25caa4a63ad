"""What an attempt is worth: graders that hold against the policy that is trained on them."""

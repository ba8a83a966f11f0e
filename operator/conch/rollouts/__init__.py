"""`conch promote|abort|retry|pause|resume` and `conch rollout`: how a revision takes over, seen and steered by people.

With the rights of their kubeconfig. A command is an annotation on the object, which the operator reads and answers in
the object's status; nothing else is changed.
"""

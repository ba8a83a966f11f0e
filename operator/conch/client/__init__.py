"""`conch infer` and `conch port-forward`: one request to a model, and its ports on this machine.

For people: with the rights of their kubeconfig, through kubectl, and without a change to the cluster.
"""

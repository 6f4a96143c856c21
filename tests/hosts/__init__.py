"""Many hosts: the processes of one node in network namespaces of their own, behind a load balancer, with faults and invariants.

``make hosts`` is the long run, ``make rolling`` updates the hosts one by one under load; `test_hosts.py` is a short run. All of it needs
root rights, ``ip`` and HAProxy.
"""

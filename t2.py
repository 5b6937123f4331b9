from t3 import *
def credit(lease, f, lease_ms, grace):
    if lease <= f.sent_at_ms or f.stalled_at_ms >= f.sent_at_ms: return lease
    return max(lease, min(f.failed_at_ms+lease_ms, f.outage_since_ms+grace))
R=Rules(credited_until_ms=credit)

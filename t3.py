from t import *
def show(r):
    if r.finding:
        for s in r.finding.steps:
            g=s.state.gateways[0]; print("   ",s.label, "lease",g.lease-NOW, "over", s.state.over, "conf", g.held)
def go(*a, **k):
    r=explore(Protocol(Scope(*a, **{x:y for x,y in k.items() if x not in("rules","secs")}), k.get("rules")),40,k.get("secs",25))
    print(a[0], r.states, r.moves, r.depth, r.is_whole, round(r.seconds,1), r.finding and r.finding.broken); show(r)
    return r

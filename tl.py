import sys,time; sys.path.insert(0,'/tmp/h/model/tests')
from model import scopes
from model.explore import explore
from model.protocol import Protocol
for s in scopes.QUICK:
    if len(sys.argv)>2 and s.name not in sys.argv[2:]: continue
    import model.explore as e
    t=[]
    r=explore(Protocol(s),99,float(sys.argv[1]))
    print(s.name, r.states, "depth", r.depth, round(r.seconds), r.finding and r.finding.broken, flush=True)
    if r.finding:
        from model import words
        print("\n".join(words.story(r.finding.steps,r.finding.broken)))

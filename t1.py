from t3 import *
from model import scopes
import sys
names=sys.argv[2:] 
for s in scopes.QUICK:
    if names and s.name not in names: continue
    r=explore(Protocol(s),99,float(sys.argv[1]))
    print(s.name, r.states, r.moves, "depth",r.depth, r.is_whole, round(r.seconds,1), r.finding and r.finding.broken); show(r)

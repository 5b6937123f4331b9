from t3 import *
import sys
from model.faults import FAULTS
tot=0
for f in FAULTS:
    if len(sys.argv)>2 and f.name not in sys.argv[2:]: continue
    r=explore(Protocol(f.scope,f.rules),f.scope.depth,float(sys.argv[1]), f.breaks+':')
    tot+=r.seconds
    print(f"{f.name:28} {f.breaks:3} {r.states:8} d{r.depth} {r.seconds:5.1f}s {r.is_whole}", r.finding.broken if r.finding else "NOT FOUND")
    if len(sys.argv)>2: show(r)
print(tot)

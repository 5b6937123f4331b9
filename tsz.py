import sys,time; sys.path.insert(0,'/tmp/h/model/tests')
from model import scopes, explore as e
from model.protocol import Protocol, initial
import model.promises as pr
which=getattr(scopes,sys.argv[1]); budget=float(sys.argv[2])
for s in which:
    if len(sys.argv)>3 and s.name not in sys.argv[3:]: continue
    p=Protocol(s); st=initial(s); seen={p.key(st)}; level=[st]; d=0; t0=time.time(); out=[]; bad=""
    while level and time.time()-t0<budget and not bad:
        nxt=[]
        for x in level:
            for step in p.steps(x):
                k=p.key(step.state)
                b=step.broken
                if k not in seen:
                    b=b or pr.broken(p,step.state)
                    seen.add(k); nxt.append(step.state)
                if b: bad=b; break
            if bad or time.time()-t0>budget*1.3: break
        level=nxt; d+=1; out.append((d,len(seen),round(time.time()-t0,1)))
    print(s.name, "WHOLE" if not level else "", bad, out[-6:], flush=True)

-- Written by pgherd; a change made here is undone by its next run.
--
-- While no leader is there, new connections wait for one instead of being refused: four seconds at most, which is longer
-- than a planned change of leader takes. Then they are refused, so that a client with several front doors tries another.
core.register_action("await_leader", { "tcp-req" }, function(txn)
  for _ = 1, 80 do
    if txn.f:nbsrv("write") > 0 then
      return
    end
    core.msleep(50)
  end
end, 0)

"""Reserve devices that are plugged into many computers: control server, workers, drivers, clients."""

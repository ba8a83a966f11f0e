module conch.local/cluster/pause

go 1.22

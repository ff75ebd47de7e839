for family in -4 -6; do
  ip $family rule add fwmark 0x100/0x300 lookup 1001 priority 1001
  ip $family rule add fwmark 0x200/0x300 lookup 1002 priority 1002
done
ip route add default via 203.0.113.1 table 1001
ip route add default via 203.0.113.129 table 1002
ip -6 route add default via 2001:db8:a::1 table 1001
ip -6 route add default via 2001:db8:b::1 table 1002
for table in 1001 1002; do
  ip route add 198.51.100.0/24 via 10.9.0.2 table $table
  ip -6 route add 2001:db8:2::/64 via 2001:db8:9::2 table $table
done
for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 2 > $f; done

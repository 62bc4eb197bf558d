#!/bin/bash
# Sends datagrams to the port that is denied and to one that is not, and opens
# connections to the first, from before there is a network. Says in /run/sender
# how many were let, and how many denied.
peer=10.0.2.2
mkdir -p /run/sender
exec {pause}<> <(:)
while :; do
    (echo first >"/dev/tcp/$peer/9001") 2>/dev/null
    read -rt 0.05 -u "$pause"
done &
allowed=0 denied=0
while :; do
    { echo first >"/dev/udp/$peer/9001"; } 2>/run/sender/error
    read -r error </run/sender/error
    case $error in *'not permitted'*) echo $((++denied)) >/run/sender/denied ;; esac
    { echo first >"/dev/udp/$peer/9002"; } 2>/dev/null && echo $((++allowed)) >/run/sender/allowed
    read -rt 0.02 -u "$pause"
done

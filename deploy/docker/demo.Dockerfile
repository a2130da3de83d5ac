# All parties of the demo league, and its enrolment: for compose.yaml on one machine, and for nothing else.
FROM hansa-coordinator:0.1.0
USER 0:0
COPY --chown=root:root deploy/enrol-demo.sh deploy/demo_league.py /opt/hansa-demo/
USER 10001:10001
ENV HANSA=/opt/hansa/bin/hansa PYTHON=/opt/hansa/bin/python
ENTRYPOINT []
CMD ["bash", "/opt/hansa-demo/enrol-demo.sh", "/league", "coordinator", "8000", "8443"]
